/* creds.h - where the access keys come from, and fresh ones before they expire.
 *
 * The chain, first hit wins: environment (unless a profile was asked for by option); the profile's
 * role, web identity, static keys, credential_process; the container's endpoint; the instance's
 * metadata service (IMDSv2 only). A source that is configured and fails is an error, not a reason
 * to try the next one. When nothing is found the error lists what was tried.
 *
 * A Creds is shared by clients of several threads; the one that finds the keys too old refreshes
 * them while the others wait.
 */
#ifndef AWS_CREDS_H
#define AWS_CREDS_H

#include "aws/http.h"
#include "aws/profile.h"
#include "aws/sigv4.h"

typedef struct Creds Creds;

typedef struct CredsOptions {
    const char *profile;   /* never NULL */
    bool profile_is_asked; /* by option, not by default or environment */
    const char *region;    /* for STS; NULL: its global endpoint */
    const char *endpoint;  /* for STS; NULL: as configured */
} CredsOptions;

MUST_USE Creds *creds_new(const CredsOptions *options, Err *err);
Creds *creds_share(Creds *creds);
void creds_release(Creds *creds); /* NULL is fine; the last one wipes */

const Profiles *creds_profiles(Creds *creds); /* valid as long as the Creds */
const char *creds_profile(const Creds *creds);

/* A copy that the caller wipes. `http` is the caller's, `stop` may be NULL. */
MUST_USE bool creds_get(Creds *creds, Http *http, const Stop *stop, AwsKeys *keys, Err *err);
/* A service called these keys expired: the next creds_get makes new ones if it can. False when they
 * can't change. */
bool creds_expired(Creds *creds, const char *id);

#endif
