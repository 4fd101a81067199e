"""Who does what when several searches share a store: claims, orphans."""
