"""`headway init`: from a table, a folder of images or text to a dataset, a task and a job that can be run, and edited.

columns    what the columns of a table are good for: numbers, categories, dates; what is left out; what looks odd
table      the task of a table
images     the task of a folder of images
text       the task of text
beginning  looks at the source, prepares it, writes the files
"""
