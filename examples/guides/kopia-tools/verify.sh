kopia snapshot verify --verify-files-percent=100     # reads and decrypts everything in the repository
