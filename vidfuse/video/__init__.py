"""From video files to pictures: sampling, decoding, isolated decode processes."""
