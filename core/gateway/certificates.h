// Certificates of the gateway's listeners, kept fresh while it runs: files that have changed are taken into use without a
// reload. On the control thread.
#pragma once

struct moon_gateway;

// The snapshot stands and the workers are made, or a reload is over: looks at the files now and then from here on, where there
// are any.
void moon_certificates_watch(struct moon_gateway *gateway);
// Looks now, once.
void moon_certificates_look(struct moon_gateway *gateway);
void moon_certificates_stop(struct moon_gateway *gateway);
