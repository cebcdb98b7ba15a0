"""From words on a command line, in recipes and in run folders to one resolved plan."""
