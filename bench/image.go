package main

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
)

// makeImage makes a raw disk image that looks like a file system in use: files of 4 KiB to 16 MiB, most of
// them small, six tenths of the bytes text and the rest incompressible, with free space between them.
func makeImage(path string, capacity, data int64) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	err = file.Truncate(capacity)
	random := rand.New(rand.NewPCG(1, 2))
	noise := rand.NewChaCha8([32]byte{1})
	text := makeText(random, 32<<20)
	buffer := make([]byte, 16<<20)
	free := float64(capacity-data) / float64(data)
	for offset, written := int64(0), int64(0); written < data && offset < capacity && err == nil; {
		size := 4096 * int64(math.Exp2(random.Float64()*12))
		size = min(size, data-written, capacity-offset)
		content := buffer[:size]
		if random.IntN(10) < 6 {
			at := random.Int64N(int64(len(text)) - size)
			content = text[at : at+size]
		} else {
			_, _ = noise.Read(content) // never fails
		}
		_, err = file.WriteAt(content, offset)
		written += size
		offset += size + int64(float64(size)*free*2*random.Float64())&^4095
	}
	return errors.Join(err, file.Close())
}

// makeText makes text that compresses about as well as logs and sources do.
func makeText(random *rand.Rand, size int) []byte {
	words := make([]string, 4000)
	for i := range words {
		letters := make([]byte, 2+random.IntN(9))
		for j := range letters {
			letters[j] = "etaoinshrdlucmfwypvbgkqjxz"[min(25, int(random.ExpFloat64()*6))]
		}
		words[i] = string(letters)
	}
	b := make([]byte, 0, size+32)
	for len(b) < size {
		b = append(b, words[min(len(words)-1, int(random.ExpFloat64()*500))]...)
		switch random.IntN(12) {
		case 0:
			b = append(b, '\n')
		case 1:
			b = fmt.Appendf(b, "=%d ", random.IntN(1e6))
		default:
			b = append(b, ' ')
		}
	}
	return b[:size]
}
