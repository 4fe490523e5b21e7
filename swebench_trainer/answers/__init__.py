"""What comes out of the model: its forms, how a patch is found in it, what is mended."""
