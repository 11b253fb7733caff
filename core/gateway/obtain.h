// Certificates that the gateway obtains by itself (ACME): the listeners of the newest snapshot say which, script/acme.h gets them.
// They lie in files, which are looked at as any certificate's (certificates.h). On the control thread.
#pragma once

struct moon_gateway;

// The newest snapshot serves: its certificates are wanted from now on.
void moon_obtain_use(struct moon_gateway *gateway);
// Before control's worker is gone. Harmless twice.
void moon_obtain_stop(struct moon_gateway *gateway);
