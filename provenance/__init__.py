"""What a picture's file says of itself: its verdict, what made it, and who signed that."""
