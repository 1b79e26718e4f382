/* profile.h - the files that all AWS tools share: ~/.aws/config and ~/.aws/credentials.
 *
 * AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name others. A file that isn't there is empty.
 * Read once; afterwards any thread may look. Nested settings have a dotted key: "rds.endpoint_url"
 * in a section "services x".
 */
#ifndef AWS_PROFILE_H
#define AWS_PROFILE_H

#include "engine/base/err.h"

typedef struct Profiles Profiles;

typedef enum ProfileFile { PROFILE_CONFIG, PROFILE_CREDENTIALS } ProfileFile;

MUST_USE Profiles *profiles_load(Err *err);
void profiles_free(Profiles *profiles); /* NULL is fine; wipes */

/* kind: "profile", "services", "sso-session"; NULL when there is no such setting. */
const char *profiles_get(const Profiles *profiles, ProfileFile file, const char *kind,
                         const char *name, const char *key);
/* From the credentials file, else from the config file. */
const char *profiles_setting(const Profiles *profiles, const char *profile, const char *key);
bool profiles_has(const Profiles *profiles, const char *profile);
const char *profiles_path(const Profiles *profiles, ProfileFile file); /* for messages */

#endif
