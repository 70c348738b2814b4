"""Pictures of kernels, mirrors and reconstructions. Whatever needs matplotlib imports it when the first figure is drawn."""
