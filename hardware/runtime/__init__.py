"""From a bundle to commands: what runs on a robot computer."""
