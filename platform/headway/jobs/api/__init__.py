"""Ray's job API over plain HTTP."""
