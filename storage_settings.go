package mcpoauth

import "context"

// settings reads the mount's settings; zero before the first write.
func (s store) settings(ctx context.Context) (settings, error) {
	var stored settings
	_, err := s.get(ctx, settingsKey, &stored)
	return stored, err
}

func (s store) putSettings(ctx context.Context, stored settings) error {
	return s.put(ctx, settingsKey, stored)
}
