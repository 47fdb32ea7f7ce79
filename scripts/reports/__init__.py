"""What the compiler and a device make of gpumlp."""
