// Package journal stands for the database of a real consumer: an append-only file that holds every effect together with
// where the consumer was when it had it. A line is one transaction: it is there as a whole or not at all.
package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Entry is one line of a journal.
type Entry struct {
	EventID    string `json:"eventId,omitempty"`
	Type       string `json:"type,omitempty"`
	TenantID   string `json:"tenantId,omitempty"`
	CustomerID string `json:"customerId,omitempty"`
	Version    int64  `json:"version,omitempty"`
	LicenseID  string `json:"licenseId,omitempty"`
	// ResumeToken is where a subscription goes on; a line may have nothing else.
	ResumeToken string `json:"resumeToken,omitempty"`
}

// Journal is an open journal and what its lines amount to.
type Journal struct {
	file     *os.File
	versions map[string]int64
	token    string
}

// Open reads a journal, or begins one. A last line that a crash cut short is no effect and is removed.
func Open(path string) (*Journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	j := &Journal{file: file, versions: map[string]int64{}}
	whole, err := j.load()
	if err == nil {
		err = file.Truncate(whole)
	}
	if err == nil {
		_, err = file.Seek(whole, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", path, err), file.Close())
	}
	return j, nil
}

// load takes over all whole lines and returns how many bytes they have.
func (j *Journal) load() (int64, error) {
	reader := bufio.NewReader(j.file)
	var whole int64
	for {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return whole, nil
		}
		if err != nil {
			return 0, err
		}
		var entry Entry
		if err := json.Unmarshal(bytes.TrimSpace(line), &entry); err != nil {
			return 0, fmt.Errorf("at byte %d: %w", whole, err)
		}
		j.note(entry)
		whole += int64(len(line))
	}
}

// Version returns the highest version of a customer that has taken effect; 0 when there is none.
func (j *Journal) Version(tenantID, customerID string) int64 {
	return j.versions[tenantID+"/"+customerID]
}

// Token returns the last resume token; empty when there is none.
func (j *Journal) Token() string {
	return j.token
}

// Append makes an entry durable, then prints it.
func (j *Journal) Append(entry Entry) error {
	line, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if _, err := j.file.Write(line); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.note(entry)
	_, err = os.Stdout.Write(line)
	return err
}

// Close closes the file.
func (j *Journal) Close() error {
	return j.file.Close()
}

func (j *Journal) note(entry Entry) {
	if entry.EventID != "" {
		j.versions[entry.TenantID+"/"+entry.CustomerID] = entry.Version
	}
	if entry.ResumeToken != "" {
		j.token = entry.ResumeToken
	}
}
