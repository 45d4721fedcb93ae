"""Networks of Hugging Face's diffusers, read without PyTorch: UNet2DModel with its scheduler, and AutoencoderKL."""
