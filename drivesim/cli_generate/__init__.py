"""`drivesim generate`: its commands and flags, the files it reads and writes, and the record of what was done."""
