"""The evidence log: what happened here, in lines that can't be changed unseen; and its signals."""
