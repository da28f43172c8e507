package trouble

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
)

// snapshotState returns the entries of a raft snapshot: state.bin in a gzipped tar.
func snapshotState(snapshot io.Reader) ([]byte, error) {
	unzipped, err := gzip.NewReader(snapshot)
	if err != nil {
		return nil, err
	}
	files := tar.NewReader(unzipped)
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the snapshot has no state.bin")
		}
		if err != nil {
			return nil, err
		}
		if header.Name == "state.bin" {
			return io.ReadAll(files)
		}
	}
}
