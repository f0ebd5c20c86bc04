"""What safety costs: do pictures still show what the prompt says, and how far did they move?"""
