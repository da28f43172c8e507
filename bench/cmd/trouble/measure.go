package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/trouble"
)

func (r *report) hanging(ctx context.Context, b *bed.Bed) error {
	s, err := trouble.NewStage(ctx, b, "hanging")
	if err != nil {
		return err
	}
	if err := trouble.MountKV(ctx, s.Root); err != nil {
		return err
	}
	for _, event := range []string{trouble.Seal, trouble.StepDown} {
		for i, h := range []trouble.Hang{
			{Readers: 0},
			{Readers: 1},
			{Readers: 40},
			{Readers: 100},
			{Readers: 100, Clients: true},
			{Readers: 100, Write: true},
		} {
			h.Event = event
			report, err := h.Run(ctx, b, s, fmt.Sprintf("%s-%d", event, i))
			if err != nil {
				return err
			}
			r.hangs = append(r.hangs, report)
		}
	}
	return nil
}

// watch is how long readers go on after every name has met a failure: two of the longest windows.
const watch = 20 * time.Second

func (r *report) client(ctx context.Context, b *bed.Bed) error {
	for i, f := range trouble.Failures() {
		s, err := trouble.NewStage(ctx, b, fmt.Sprintf("client-%d", i))
		if err != nil {
			return err
		}
		report, err := f.Crowd(ctx, s, r.names, watch)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		r.crowds = append(r.crowds, report)
		// Several kinds fail by one answer each; two of them are enough here.
		if f.Limit <= watch && f.Name != "invalid_client, 401" {
			continue
		}
		if s, err = trouble.NewStage(ctx, b, fmt.Sprintf("rotation-%d", i)); err != nil {
			return err
		}
		rotated, err := f.Rotate(ctx, s, r.names, watch)
		if err != nil {
			return fmt.Errorf("%s, rotation: %w", f.Name, err)
		}
		r.rotations = append(r.rotations, rotation{f.Name, rotated})
	}
	return nil
}

func (r *report) outage(ctx context.Context, b *bed.Bed) error {
	var all []trouble.Outage
	for i, length := range r.lengths {
		blip := length
		if i == 0 {
			blip = 11 * time.Second
		}
		all = append(all, trouble.Outages(length, blip)...)
	}
	all = append(all, trouble.HeldOutages()...)
	r.outages = make([]*trouble.OutageReport, len(all))
	var group errgroup.Group
	for i, o := range all {
		group.Go(func() error {
			s, err := trouble.NewStage(ctx, b, fmt.Sprintf("outage-%d", i))
			if err == nil {
				r.outages[i], err = o.Run(ctx, s)
			}
			if err != nil {
				return fmt.Errorf("%s for %s: %w", o.Name, o.Length, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (r *report) short(ctx context.Context, b *bed.Bed) error {
	for _, lifetime := range []time.Duration{time.Second, 5 * time.Second, 9 * time.Second} {
		s, err := trouble.NewStage(ctx, b, fmt.Sprintf("short-%d", lifetime/time.Second))
		if err != nil {
			return err
		}
		report, err := trouble.ShortLived{Names: r.names, Lifetime: lifetime, Calm: 10 * time.Second}.Run(ctx, s)
		if err != nil {
			return err
		}
		r.shortLived = append(r.shortLived, report)
	}
	return nil
}

func (r *report) delete(ctx context.Context, b *bed.Bed) error {
	s, err := trouble.NewStage(ctx, b, "delete")
	if err != nil {
		return err
	}
	if r.bigDelete, err = (trouble.BigDelete{Roles: r.roles, Others: r.others}).Run(ctx, s); err != nil {
		return err
	}
	r.rewrite, err = trouble.Rewrite{Roles: r.roles}.Run(ctx, s)
	return err
}
