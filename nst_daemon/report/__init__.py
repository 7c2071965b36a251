"""Files that belong to a picture: sidecar, loss curve, time-lapse; and overviews: gallery, contact sheets."""
