"""`drivesim data`: its commands, one file each but for the short ones."""
