/*
 * Retirement, restart, growth and wake-up in format 1 (shm/FORMAT.md, "To wait" and "Replacement" of section 5, and
 * section 6), under sequential consistency: every step below is one access to memory or one system call, and takes
 * effect at once for all. What a weak memory adds is the matter of latch.pml.
 *
 * One name in one directory leads to at most one file. Writers follow one another, each killed at any step: they build
 * the file, go on with it, replace it (a larger max_bytes) or finish a replacement that a predecessor began. A stranger
 * unlinks the file once. Readers attach, wait, read, and follow the name, without end.
 *
 * Sleep. A reader that called FUTEX_WAIT is awake again when the word has another value, by a wake, or when its slice
 * of at most a second ends. Slices are what saves a reader whose writer is dead and whom no successor knows, and only
 * there do they end in this model (SLICE_ENDS): a reader that lived on slices under a living writer sleeps for good.
 *
 * Smaller than the format: FILES, VERSIONS and LIVES bound the story; SLOTS is 3 where format 1 has 4; a room is one
 * page, the file ends after `size` pages, and max_bytes allows PAGES of them, so that a third version grows no more
 * but has an older one given up. Files are numbered in the order in which they took the name; the number is the epoch.
 * The lock is taken for granted: one writer lives at a time.
 */

#ifndef READERS
#define READERS 2
#endif
#ifndef FILES
#define FILES 2
#endif
#ifndef VERSIONS
#define VERSIONS 4 /* publications in all, those of replacements included; up to 9 */
#endif
#ifndef LIVES
#define LIVES 2 /* of the writer, up to 3; each may end at any step */
#endif
#define SLOTS 3
#define PAGES 2

#define NO_FILE 255
#define CONTENT(version) ((version) * 4 + life)

#define SLOT(file, version) ((file) * SLOTS + (version) % SLOTS)
#define PLACE(file, page) ((file) * PAGES + (page))

/* The directory, and the files that have or had the name; the one built aside is the file number `files`. */
byte name = NO_FILE;
byte files;
byte latest[FILES];
bool retired[FILES]; /* bit 63 of `latest`: every load below takes both */
byte wake_word[FILES];
byte size[FILES];
byte floor[FILES];
byte counter[FILES * SLOTS];
byte room_word[FILES * SLOTS]; /* page + 1; 0 is the room word 0 */
byte page[FILES * PAGES];

/* The state directory: the highest version that was published. That it is written ahead and not at each publication
   only leaves out numbers. */
byte reserved;

/* The kernel's side of the futex. */
byte mapped[READERS] = NO_FILE;
bool asleep[READERS];
bool throttled[READERS]; /* asleep only until it may open the name again */

/* For the properties alone. */
byte life = 1;
bool alive;
bool over;                /* the last writer is gone */
bool idle;                /* the writer has done all that it had to do */
byte own = NO_FILE;       /* the writer's file */
byte publications;
byte content_of[FILES];   /* what `latest` was published with */
bool abandoned[FILES];    /* its writer died when the name led elsewhere: nobody wakes its readers any more */
bool unlinked[FILES];     /* by the stranger */
byte seen_file[READERS];  /* what each reader returned last */
byte seen_version[READERS];
bool mixture, going_back, asleep_for_good, blocked, damage, left_behind;

/* A search for one property alone, so that an ablation is known to break that very one. */
#if defined(ONLY_MIXTURE) || defined(ONLY_GOING_BACK) || defined(ONLY_ASLEEP_FOR_GOOD) || defined(ONLY_BLOCKED) || \
	defined(ONLY_DAMAGE) || defined(ONLY_LEFT_BEHIND)
#define ONLY
#endif
#if !defined(ONLY) || defined(ONLY_MIXTURE)
#define CHECK_MIXTURE(found) mixture = (found); assert(!mixture)
#else
#define CHECK_MIXTURE(found) skip
#endif
#if !defined(ONLY) || defined(ONLY_GOING_BACK)
#define CHECK_GOING_BACK(found) going_back = (found); assert(!going_back)
#else
#define CHECK_GOING_BACK(found) skip
#endif
#if !defined(ONLY) || defined(ONLY_ASLEEP_FOR_GOOD)
#define CHECK_ASLEEP_FOR_GOOD(found) asleep_for_good = (found); assert(!asleep_for_good)
#else
#define CHECK_ASLEEP_FOR_GOOD(found) skip
#endif
#if !defined(ONLY) || defined(ONLY_BLOCKED)
#define CHECK_BLOCKED(found) blocked = (found); assert(!blocked)
#else
#define CHECK_BLOCKED(found) skip
#endif
#if !defined(ONLY) || defined(ONLY_DAMAGE)
#define CHECK_DAMAGE(found) damage = (found); assert(!damage)
#else
#define CHECK_DAMAGE(found) skip
#endif
#if !defined(ONLY) || defined(ONLY_LEFT_BEHIND)
#define CHECK_LEFT_BEHIND(found) left_behind = (found); assert(!left_behind)
#else
#define CHECK_LEFT_BEHIND(found) skip
#endif

/* Nothing that the living writer does on its own accord is outstanding. */
#define QUIET (idle && name == own)

#ifdef LONG_SLEEP_WHEN_RETIRED
#define SLICE_ENDS(reader) (!alive || (abandoned[mapped[reader]] && !retired[mapped[reader]]))
#else
#define SLICE_ENDS(reader) (!alive || abandoned[mapped[reader]] || throttled[reader])
#endif

#define SLEEPS_FOR_GOOD(reader) \
	(asleep[reader] && QUIET && !SLICE_ENDS(reader) && latest[name] != 0 && \
		(seen_file[reader] != name || seen_version[reader] != latest[name]))

/* --- section 5: reading, waiting, following the name -------------------------------------------------------------- */

#define FILE mapped[_pid]
#define SEEN_FILE seen_file[_pid]
#define SEEN_VERSION seen_version[_pid]

/* A reader moves only to a file that holds a version of 1 or more. */
#ifdef MOVE_TO_EMPTY
#define WORTH_MOVING true
#else
#define WORTH_MOVING (latest[name] != 0)
#endif
#ifdef NEVER_REOPEN
#define SUCCESSOR_FOUND false
#else
#define SUCCESSOR_FOUND (name != NO_FILE && name != FILE && WORTH_MOVING)
#endif
#define GOES_BACK(version) \
	(FILE < SEEN_FILE || version < SEEN_VERSION || (FILE > SEEN_FILE && version == SEEN_VERSION))

#define MOVE FILE = name; known = size[name]

/* Nobody stores in the slots of this file any more, or nobody stores anything: a try to read must succeed. */
#define CALM (over || (name != NO_FILE && name != FILE))

active [READERS] proctype reader()
{
	byte known;    /* size of the file as fstat told last, pages */
	byte woken;    /* the wake word as loaded */
	byte version, content, room;
	bool calm, mixed;

end_attach:
	d_step { name != NO_FILE && latest[name] != 0 -> MOVE };

read:
#ifdef READS_AT_ONCE
	if
	:: d_step {
		CHECK_BLOCKED(latest[FILE] == 0);
		CHECK_GOING_BACK(GOES_BACK(latest[FILE]));
		SEEN_FILE = FILE; SEEN_VERSION = latest[FILE]
	}
	fi;
#else
	/* The latch; see latch.pml. Here: rooms that are given up and used again, and the growing file. */
	if
	:: d_step {
		version = latest[FILE]; content = content_of[FILE]; calm = CALM;
		CHECK_BLOCKED(version == 0)
	}
	fi;
	if
	:: d_step { counter[SLOT(FILE, version)] == 2 * version -> room = room_word[SLOT(FILE, version)] }
	:: d_step { counter[SLOT(FILE, version)] != 2 * version -> CHECK_BLOCKED(calm) }; goto read
	fi;
	if
	:: d_step { room != 0 && room <= known -> skip }
#ifdef NO_FSTAT
	:: d_step { room > known -> room = 0 }
#else
	:: d_step { room > known -> known = size[FILE]; room = (room <= known -> room : 0) } /* fstat */
#endif
	:: room == 0
	fi;
	if
	:: d_step { room != 0 -> CHECK_DAMAGE(room > size[FILE]); mixed = page[PLACE(FILE, room - 1)] != content }
	:: room == 0
	fi;
	if
	:: d_step {
		counter[SLOT(FILE, version)] == 2 * version ->
		CHECK_DAMAGE(room == 0);
		CHECK_MIXTURE(mixed);
		CHECK_GOING_BACK(GOES_BACK(version));
		SEEN_FILE = FILE; SEEN_VERSION = version;
		version = 0; content = 0; room = 0; calm = false; mixed = false
	}
	:: d_step {
		counter[SLOT(FILE, version)] != 2 * version ->
		CHECK_BLOCKED(calm);
		room = 0; mixed = false
	}; goto read
	fi;
#endif

wait:
	/* The wake word first, then `latest`: a publication between the two loads changes the word, and FUTEX_WAIT
	   returns at once. Pairs with the writer's order: `latest`, then the word, then the wake. */
#ifndef LATEST_BEFORE_WAKE_WORD
	if
	:: d_step { woken = wake_word[FILE] }
	fi;
#endif
	if
	:: d_step {
		!retired[FILE] ->
		version = latest[FILE];
		/* Whoever looks while all is quiet is in the file under the name, or is told to look for it; only a file that a
		   stranger unlinked while no writer lived has nobody to mark it. */
		CHECK_LEFT_BEHIND(QUIET && latest[name] != 0 && FILE != name && !(unlinked[FILE] && abandoned[FILE]))
	}
	:: d_step { retired[FILE] && SUCCESSOR_FOUND -> MOVE; woken = 0 }; goto read
	:: d_step { retired[FILE] && !SUCCESSOR_FOUND -> version = latest[FILE] }
	:: d_step { retired[FILE] -> version = latest[FILE]; throttled[_pid] = true } /* it looked less than 50 ms ago */
	fi;
	if
	:: d_step { version != SEEN_VERSION || FILE != SEEN_FILE -> woken = 0; version = 0; throttled[_pid] = false }; goto read
	:: d_step { version == SEEN_VERSION && FILE == SEEN_FILE -> version = 0 }
	fi;
#ifdef LATEST_BEFORE_WAKE_WORD
	d_step { woken = wake_word[FILE] };
#endif

	/* FUTEX_WAIT compares and falls asleep in one step. */
#ifdef WAIT_NOT_ATOMIC
	if
	:: d_step { wake_word[FILE] == woken -> woken = 0 };
		d_step { asleep[_pid] = true; CHECK_ASLEEP_FOR_GOOD(SLEEPS_FOR_GOOD(_pid)) }
#else
	if
	:: d_step {
		wake_word[FILE] == woken ->
		asleep[_pid] = true; woken = 0;
		CHECK_ASLEEP_FOR_GOOD(SLEEPS_FOR_GOOD(_pid))
	}
#endif
	:: d_step { wake_word[FILE] != woken -> woken = 0 }
	fi;
end_asleep:
	if
	:: d_step { !asleep[_pid] -> throttled[_pid] = false }
	:: d_step { asleep[_pid] && SLICE_ENDS(_pid) -> asleep[_pid] = false; throttled[_pid] = false }
	fi;
	if
	:: d_step { SUCCESSOR_FOUND -> MOVE }; goto read
	:: d_step { !SUCCESSOR_FOUND -> skip }; goto wait
	fi
}

/* --- somebody who unlinks the segment ------------------------------------------------------------------------------ */

active proctype stranger()
{
end:
	d_step {
		name != NO_FILE && files < FILES ->
		unlinked[name] = true;
		if
		:: name != own -> abandoned[name] = true /* no writer has it */
		:: else
		fi;
		name = NO_FILE
	}
}

/* --- section 6: writing ------------------------------------------------------------------------------------------ */

#define CLEAR(file) \
	latest[file] = 0; retired[file] = false; wake_word[file] = 0; size[file] = 0; floor[file] = 0; \
	content_of[file] = 0; \
	for (i : 0 .. SLOTS - 1) { counter[(file) * SLOTS + i] = 0; room_word[(file) * SLOTS + i] = 0 } \
	for (i : 0 .. PAGES - 1) { page[(file) * PAGES + i] = 0 }

/* What a dead writer held is let go by the kernel; what it built aside, its successor removes. */
#define KILLED \
	d_step { \
		alive = false; idle = false; own = NO_FILE; life++; \
		for (i : 0 .. FILES - 1) { \
			if \
			:: i < files && i != name -> abandoned[i] = true \
			:: i == files -> CLEAR(files) \
			:: else \
			fi \
		} \
		i = 0; version = 0; room = 0; old = NO_FILE \
	}; \
	goto successor

#define STEP(stores) \
	if \
	:: d_step { stores } \
	:: KILLED \
	fi

#define FUTEX_WAKE(file) \
	for (i : 0 .. READERS - 1) { \
		if \
		:: mapped[i] == file -> asleep[i] = false \
		:: else \
		fi \
	} \
	i = 0

/* A file that was left before the one now replaced has readers only where they looked in vain both times. */
#define RENAME \
	STEP( \
		for (i : 0 .. FILES - 1) { \
			if \
			:: i < files && i != old -> abandoned[i] = true \
			:: else \
			fi \
		} \
		i = 0; name = files; own = files; files++)

#define TARGET SLOT(own, version)
#define OLDER SLOT(own, version + 1) /* of three slots the one that is neither the target nor that of `latest` */
#define OWNS(slot, room) (room_word[slot] == room)
#define FREE(room) (!OWNS(OLDER, room) && !OWNS(SLOT(own, version + 2), room))

active proctype writer()
{
	byte version, room, i;
	byte old = NO_FILE;

successor:
	if
	:: d_step { life <= LIVES -> alive = true }
	:: d_step { life > LIVES -> over = true; life = LIVES }; goto gone
	fi;

	/* Taking over, or not. */
	if
	:: d_step { name == NO_FILE -> skip }; goto build_anew
	:: d_step {
		name != NO_FILE && !retired[name] ->
		own = name;
#ifndef READS_AT_ONCE
		for (i : 0 .. SLOTS - 1) { /* odd, or beyond `latest` */
			if
			:: counter[own * SLOTS + i] > 2 * latest[own] ->
				counter[own * SLOTS + i] = 0; room_word[own * SLOTS + i] = 0
			:: counter[own * SLOTS + i] == 0 -> room_word[own * SLOTS + i] = 0
			:: else
			fi
		}
#endif
		i = 0
	}
	:: d_step { name != NO_FILE && retired[name] -> own = name }; goto replace /* finishes what was begun */
	:: d_step { name != NO_FILE && !retired[name] && latest[name] != 0 && files < FILES -> own = name }; goto replace
	:: KILLED
	fi;

	/* The predecessor may have died between publishing and waking: bump, so that who is about to sleep does not, and
	   wake, for who sleeps. */
#ifndef NO_BUMP_AT_TAKEOVER
	STEP(wake_word[own]++);
#endif
#ifndef NO_WAKE_AT_TAKEOVER
	STEP(FUTEX_WAKE(own));
#endif

on:
	STEP(
		idle = true;
		for (i : 0 .. READERS - 1) { CHECK_ASLEEP_FOR_GOOD(SLEEPS_FOR_GOOD(i)) }
		i = 0);
	if
	:: d_step {
		name == own && publications < VERSIONS ->
		idle = false;
		publications++;
		version = (latest[own] > floor[own] -> latest[own] : floor[own]) + 1
	}
	:: d_step { name != own && latest[own] != 0 -> idle = false }; goto replace
	:: d_step { name != own && latest[own] == 0 -> idle = false; own = NO_FILE }; goto build_anew
	:: KILLED
	fi;

#ifndef READS_AT_ONCE
	/* Step 1: room. The lowest page that no slot but the target owns; the file grows before anything is stored there.
	   With none within max_bytes an older version is given up: its counter, then its room word, and only then reuse. */
	if
	:: d_step { FREE(1) -> room = 1 }
	:: d_step { !FREE(1) && FREE(2) -> room = 2 }
	:: d_step { !FREE(1) && !FREE(2) -> skip };
#ifndef REUSE_WITHOUT_ZERO
		STEP(counter[OLDER] = 0);
#endif
		STEP(room = room_word[OLDER]; room_word[OLDER] = 0)
	fi;
#ifndef GROW_LATE
	if
	:: d_step { room > size[own] -> size[own] = room }
	:: room <= size[own]
	:: KILLED
	fi;
#endif

#endif

	/* Steps 2 to 5. */
#ifdef WAKE_BEFORE_LATEST
	STEP(wake_word[own]++);
	STEP(FUTEX_WAKE(own));
#endif
#ifndef READS_AT_ONCE
	STEP(counter[TARGET] = 2 * version - 1);
	STEP(room_word[TARGET] = room; page[PLACE(own, room - 1)] = CONTENT(version));
	STEP(counter[TARGET] = 2 * version);
#endif
	STEP(
		latest[own] = version;
		content_of[own] = CONTENT(version);
		reserved = (version > reserved -> version : reserved);
#ifndef GROW_LATE
		room = 0;
#endif
		version = 0);
#ifdef GROW_LATE
	STEP(size[own] = (room > size[own] -> room : size[own]); room = 0);
#endif
#ifndef WAKE_BEFORE_LATEST
#ifndef NO_BUMP
	STEP(wake_word[own]++);
#endif
#ifndef NO_WAKE
	STEP(FUTEX_WAKE(own));
#endif
#endif
	goto on;

build_anew:
	/* Nothing is there to go on from; the numbers go on from the state directory. */
	STEP(
#ifndef NO_RESERVATION
		floor[files] = reserved
#else
		skip
#endif
	);
	STEP(own = files; name = files; files++);
	goto on;

replace:
	/* The successor is built aside, with a published version above the old one's. */
	STEP(
		old = own;
		publications = (publications < VERSIONS -> publications + 1 : publications);
#ifdef NUMBERS_BEGIN_ANEW
		version = 1;
#else
		version = latest[old] + 1;
#endif
#ifdef EMPTY_SUCCESSOR
		floor[files] = latest[old];
#else
		size[files] = 1;
		counter[SLOT(files, version)] = 2 * version;
		room_word[SLOT(files, version)] = 1;
		page[PLACE(files, 0)] = CONTENT(version);
		latest[files] = version;
		content_of[files] = CONTENT(version);
		reserved = (version > reserved -> version : reserved);
#endif
		version = 0);
	/* Then the old file is retired, its readers are woken, and only then the name leads to the successor. */
#ifdef RENAME_BEFORE_RETIRE
	RENAME;
#endif
#ifndef NO_RETIRE
	STEP(retired[old] = true);
#endif
#ifndef NO_WAKE_AT_RETIRE
	STEP(wake_word[old]++);
	STEP(FUTEX_WAKE(old));
#endif
#ifndef RENAME_BEFORE_RETIRE
	RENAME;
#endif
	/* Who looked between the retirement and the rename, and found nothing, looks again. */
#ifndef NO_WAKE_AFTER_RENAME
	STEP(wake_word[old]++);
	STEP(FUTEX_WAKE(old));
#endif
	STEP(old = NO_FILE);
	goto on;

gone:
	skip
}
