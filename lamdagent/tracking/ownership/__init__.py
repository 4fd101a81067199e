"""Division of work among several searches that share a store: claims, orphans."""
