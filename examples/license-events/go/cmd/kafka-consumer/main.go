// Command kafka-consumer reads the topic of license events as a member of a consumer group. The guide explains it:
// docs/guides/license-events.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	licensingv1 "licet.dev/examples/license-events/gen/licet/licensing/v1"
	"licet.dev/examples/license-events/internal/journal"
)

const topic = "licet.license.v1"

// maxRecords bounds what is taken from Kafka's client, and committed, at once.
const maxRecords = 500

func main() {
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		slog.Error("the consumer ends", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	effects, err := journal.Open(os.Getenv("JOURNAL"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, effects.Close()) }()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Getenv("KAFKA_BROKERS"), ",")...),
		kgo.ConsumerGroup(os.Getenv("CONSUMER_GROUP")),
		kgo.ConsumeTopics(topic),
		// A new group begins with what the topic still has.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// Offsets are committed by us, after the effect; no partition moves to another member in between.
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(10*time.Second),
		kgo.FetchMaxBytes(8<<20),
	)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	for {
		fetches := client.PollRecords(ctx, maxRecords)
		if ctx.Err() != nil {
			return nil
		}
		// The client goes on trying by itself; what it reports here it does not get over, or not soon.
		fetches.EachError(func(topic string, partition int32, err error) {
			slog.Warn("records can't be fetched", "topic", topic, "partition", partition, "error", err)
		})
		records := fetches.Records()
		for _, record := range records {
			if err := take(effects, record); err != nil {
				return err
			}
		}
		// A commit that fails is made up for by a later one, or the records come again and are known.
		if err := client.CommitRecords(ctx, records...); err != nil {
			slog.Warn("offsets were not committed", "error", err)
		}
		client.AllowRebalance()
	}
}

// take brings about what a record says, unless that is known already. The error is one of the journal: it ends the
// consumer before the offset is committed, and the record comes again.
func take(effects *journal.Journal, record *kgo.Record) error {
	change, err := decode(record)
	if err != nil {
		// It would be the same however often it was read: it is told, and the consumer goes on.
		slog.Error("poison", "topic", record.Topic, "partition", record.Partition, "offset", record.Offset, "error", err)
		return nil
	}
	known := effects.Version(change.GetTenantId(), change.GetCustomerId())
	if change.GetVersion() <= known {
		return nil
	}
	if known > 0 && change.GetVersion() > known+1 {
		// The topic keeps events for 7 days. Nothing has to be made up for: the event has everything that holds now.
		slog.Warn("versions are missing", "customer", change.GetCustomerId(), "known", known, "version", change.GetVersion())
	}
	return effects.Append(journal.Entry{
		EventID:    header(record, "ce_id"),
		Type:       header(record, "ce_type"),
		TenantID:   change.GetTenantId(),
		CustomerID: change.GetCustomerId(),
		Version:    change.GetVersion(),
		LicenseID:  change.GetLicenseId(),
	})
}

func decode(record *kgo.Record) (*licensingv1.LicenseChanged, error) {
	if header(record, "ce_id") == "" || header(record, "ce_type") == "" {
		return nil, errors.New("the headers ce_id and ce_type are missing: it is no CloudEvent")
	}
	change := &licensingv1.LicenseChanged{}
	if err := proto.Unmarshal(record.Value, change); err != nil {
		return nil, err
	}
	if change.GetVersion() < 1 || change.GetSnapshot() == nil {
		return nil, fmt.Errorf("version %d without a snapshot", change.GetVersion())
	}
	return change, nil
}

func header(record *kgo.Record, name string) string {
	for _, header := range record.Headers {
		if header.Key == name {
			return string(header.Value)
		}
	}
	return ""
}
