"""Who does what, when several searches share a store: owners, claims, orphans."""
