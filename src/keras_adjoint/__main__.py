"""`python -m keras_adjoint` is `keras-adjoint`."""

from keras_adjoint_cli import main

if __name__ == "__main__":
    main()
