"""The command line. One file per verb family; nothing heavy is imported until a verb runs."""
