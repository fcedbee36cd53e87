"""Networks: pretrained backbones, their weights, their layer groups, and what of them trains."""
