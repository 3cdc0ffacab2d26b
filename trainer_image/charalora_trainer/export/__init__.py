"""What leaves the trainer: files that other programs read, each proven to be what training computed."""
