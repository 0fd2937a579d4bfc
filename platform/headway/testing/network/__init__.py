"""Networks of a drill: a namespace per machine, all plugged into one switch, whose links fail as one likes."""
