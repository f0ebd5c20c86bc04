"""A small real text-to-image model of emoji pictures, its detector and its modules."""
