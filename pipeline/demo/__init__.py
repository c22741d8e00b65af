"""The embedded demonstration: drawn faces, drawn paintings, and the data set built of them."""
