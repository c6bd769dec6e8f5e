"""The families probe knows, a file each: data and a function for the token layout."""
