/* What spice-common's configure step would write: every option is off. */
