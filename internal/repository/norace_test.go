//go:build !race

package repository

const raceDetector = false
