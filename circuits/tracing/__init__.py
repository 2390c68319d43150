"""Attribution graphs: what one prompt's logits are made of, unit by unit."""
