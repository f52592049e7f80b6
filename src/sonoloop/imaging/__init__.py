"""Files in, frames out: images and phantoms."""
