"""Published data sets, declared in `data_manifests/*.yaml` and turned into manifests."""
