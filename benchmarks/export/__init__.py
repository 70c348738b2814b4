"""Export tied models to every format that Keras writes, run the files in their own runtimes, and weigh them."""
