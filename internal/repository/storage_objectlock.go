package repository

import "time"

// An ObjectLock is for how long nobody can delete or overwrite what is written to a repository, which the storage
// sees to.
type ObjectLock struct {
	Mode   LockMode
	Period time.Duration // at least two days
}

// A LockMode says who can lift an ObjectLock.
type LockMode string

const (
	// LockGovernance lets those lift it who have a permission of its own.
	LockGovernance LockMode = "GOVERNANCE"
	// LockCompliance lets nobody lift it, not even the owner of the account.
	LockCompliance LockMode = "COMPLIANCE"
)
