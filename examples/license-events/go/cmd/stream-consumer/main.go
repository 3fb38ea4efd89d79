// Command stream-consumer subscribes to license events over gRPC. The guide explains it: docs/guides/license-events.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	licensingv1 "licet.dev/examples/license-events/gen/licet/licensing/v1"
	"licet.dev/examples/license-events/internal/journal"
)

const (
	// silence is how long a living subscription says nothing at the most: heartbeats come every 3 seconds.
	silence = 15 * time.Second
	// Pauses before the next attempt: a random part of what doubles from the first to the last.
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
)

// final has the answers that the next attempt would get too.
var final = map[codes.Code]bool{
	codes.InvalidArgument:  true,
	codes.Unauthenticated:  true,
	codes.PermissionDenied: true,
	codes.Unimplemented:    true,
}

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
	// Cleartext, as inside a mesh without TLS; elsewhere credentials.NewTLS.
	conn, err := grpc.NewClient(
		os.Getenv("LICET_ADDRESS"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	client := licensingv1.NewLicensingServiceClient(conn)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		received, err := subscribe(ctx, client, effects)
		if ctx.Err() != nil {
			return nil
		}
		if final[status.Code(err)] || errors.As(err, new(*effectError)) {
			return err
		}
		if received {
			pause = firstPause
		}
		slog.Warn("the subscription ended and is resumed", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rand.N(pause)):
		}
	}
}

// effectError is a failure of our own, not of the stream.
type effectError struct{ error }

// subscribe takes messages until the stream ends, which it always does with an error. It tells whether it got any.
func subscribe(ctx context.Context, client licensingv1.LicensingServiceClient, effects *journal.Journal) (bool, error) {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "x-api-key", os.Getenv("LICET_API_KEY")))
	defer cancel()
	silent := time.AfterFunc(silence, cancel)
	defer silent.Stop()
	stream, err := client.SubscribeLicenseEvents(ctx, &licensingv1.SubscribeLicenseEventsRequest{
		ResumeToken: effects.Token(),
		// Counts at the first time only, when there is no token.
		Start: licensingv1.SubscriptionStart_SUBSCRIPTION_START_EARLIEST,
	})
	if err != nil {
		return false, err
	}
	for received := false; ; received = true {
		message, err := stream.Recv()
		if err != nil {
			return received, fmt.Errorf("subscription: %w", err)
		}
		silent.Reset(silence)
		if err := take(effects, message); err != nil {
			return received, &effectError{err}
		}
	}
}

// take makes the effect of a message and its token durable in one step.
func take(effects *journal.Journal, message *licensingv1.SubscribeLicenseEventsResponse) error {
	token := message.GetResumeToken()
	event := message.GetEvent()
	if event == nil {
		// A heartbeat: only the place moves on, past what is not for this subscription.
		if token == effects.Token() {
			return nil
		}
		return effects.Append(journal.Entry{ResumeToken: token})
	}
	change := event.GetChange()
	return effects.Append(journal.Entry{
		EventID:     event.GetEventId(),
		Type:        event.GetType(),
		TenantID:    change.GetTenantId(),
		CustomerID:  change.GetCustomerId(),
		Version:     change.GetVersion(),
		LicenseID:   change.GetLicenseId(),
		ResumeToken: token,
	})
}
