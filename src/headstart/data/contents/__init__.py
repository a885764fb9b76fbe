"""Where the encoded bytes of images lie: files, members of tar shards, cells of tables, objects in a bucket."""
