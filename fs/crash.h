/* crash: notes which request a worker died of. */
#pragma once

/* From now on SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT count against the request that their thread worked on
 * (base/behalf.h), and end the process as ever. Worker, once, before other threads exist. */
void crash_arm(void);
