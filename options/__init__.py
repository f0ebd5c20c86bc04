"""What people choose: the table that makes a node's input and a flag of one row, and its checks."""
