"""The diagram of an encoder and its mirror: its labels, its layout, and the shapes that it is made of."""
