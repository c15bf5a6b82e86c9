# Once for a user and a machine. Nothing in the repository is changed.
KOPIA_PASSWORD=$VM_REPOSITORY_PASSWORD kopia repository connect filesystem --path "$VM_REPOSITORY_PATH" --readonly
