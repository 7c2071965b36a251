// A result beside its content.
