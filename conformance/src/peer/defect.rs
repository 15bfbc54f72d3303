//! Defects that can be switched on in an embedded host, one at a time, to prove that the suite notices each of them.

use std::{fmt, str::FromStr};

/// Declares the defects: per row the variant, the name, the requirement that it violates, and `gross` or not.
macro_rules! defects {
    ($( $(#[doc = $doc:literal])* $Variant:ident $name:literal $requirement:literal $($gross:ident)?; )*) => {
        /// One way in which an embedded host does not conform.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Defect {
            $( $(#[doc = $doc])* $Variant, )*
        }

        impl Defect {
            /// All defects, in the order of their requirements.
            pub const ALL: &'static [Self] = &[$( Self::$Variant ),*];

            /// The name on the command line and in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$Variant => $name, )*
                }
            }

            /// What the host does, in a sentence.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self {
                    $( Self::$Variant => concat!($($doc),*).trim_start(), )*
                }
            }

            /// Whether the host serves nobody any more once it shows: then it shows in cases about other requirements, too.
            #[must_use]
            pub const fn is_gross(self) -> bool {
                match self {
                    $( Self::$Variant => defects!(@gross $($gross)?), )*
                }
            }

            /// The requirement that it violates; unless it is gross, it violates no other.
            #[must_use]
            pub const fn requirement(self) -> &'static str {
                match self {
                    $( Self::$Variant => $requirement, )*
                }
            }
        }
    };
    (@gross gross) => { true };
    (@gross) => { false };
}

defects! {
    /// A wrong magic is answered with ERROR.
    MagicAnsweredWithError "magic-answered-with-error" "L1.1";
    /// A wrong magic is only noticed when all 16 bytes of the header are in.
    MagicCheckedLate "magic-checked-late" "L1.2";
    /// Any major version but 0 is served.
    OtherMajorAccepted "other-major-accepted" "L2.1";
    /// A minor version other than 2 is refused with VERSION_MISMATCH.
    MinorChecked "minor-checked" "L2.2";
    /// A size below 18 is answered with ERROR.
    SmallSizeAnsweredWithError "small-size-answered-with-error" "L3.1";
    /// Link messages of up to 64 KiB are read and accepted.
    LargeSizeAccepted "large-size-accepted" "L3.2";
    /// More than 1024 capability words are answered with ERROR.
    TooManyWordsAnsweredWithError "too-many-words-answered-with-error" "L3.3";
    /// Capability words are counted in bytes of 32 bits, so that 2^30 of them are none.
    WordsCountedInBytes "words-counted-in-bytes" "L3.3";
    /// A link message with bytes beside its fixed part and its words is refused with INVALID_DATA.
    GapsRefused "gaps-refused" "L3.5";
    /// Capability words outside of the message are answered with ERROR.
    WordsOutsideAnsweredWithError "words-outside-answered-with-error" "L3.4";
    /// A channel that demands TLS is linked in plaintext, too.
    PlaintextAccepted "plaintext-accepted" "L4";
    /// Of a host that demands TLS the channels beside main are linked in plaintext, too.
    PlaintextChildAccepted "plaintext-child-accepted" "L4";
    /// A channel that demands plaintext is linked over TLS, too.
    TlsAccepted "tls-accepted" "L4";
    /// A connection over TLS is closed once it is secured.
    TlsClosed "tls-closed" "L4.2";
    /// The ticket is not checked.
    AnyTicketAccepted "any-ticket-accepted" "L5.1";
    /// The ticket of a channel beside main is not checked.
    ChildTicketUnchecked "child-ticket-unchecked" "L5.1";
    /// A ticket that begins with the password is taken for it.
    TicketComparedInPart "ticket-compared-in-part" "L5.1";
    /// A host with a password refuses every ticket.
    RightTicketRefused "right-ticket-refused" "L5.2";
    /// An unknown mechanism is taken for a ticket.
    UnknownMechanismAccepted "unknown-mechanism-accepted" "L5.3";
    /// A mechanism is awaited from clients that do not send one.
    MechanismAlwaysAwaited "mechanism-always-awaited" "L5.4";
    /// A password that has expired, or is empty, is taken from whoever comes.
    VoidPasswordAccepted "void-password-accepted" "L5.5";
    /// A child channel is linked whatever its connection id.
    ConnectionIdUnchecked "connection-id-unchecked" "L6.1";
    /// A channel that the host does not have is linked, and silent.
    UnknownChannelAccepted "unknown-channel-accepted" "L6.2";
    /// A new main link leaves the connected client in place.
    FirstClientKept "first-client-kept" "L7.1";
    /// A link of main ends the session of whoever is there before its ticket has come.
    PlaceTakenBeforeTicket "place-taken-before-ticket" "L7.4";
    /// A new main link ends the session of the connected client, though several are allowed.
    SeveralReplaced "several-replaced" "L7.3";
    /// The public key consists of zeros.
    PublicKeyMalformed "public-key-malformed" "L8.1";
    /// Link header and message are only understood when they arrive together.
    LinkNeedsWholeSegments "link-needs-whole-segments" "L9.1";
    /// Over TLS, SASL is spoken though it is not offered, and its mechanism ANONYMOUS lets a client in without the password.
    AnonymousAccepted "anonymous-accepted" "L5.8";
    /// What comes together with the ticket is not heard.
    BytesBehindTicketLost "bytes-behind-ticket-lost" "L9.2";
    /// MULTI_MEDIA_TIME comes before INIT.
    MessageBeforeInit "message-before-init" "M1.1";
    /// No NAME for a client that wants it.
    NameWithheld "name-withheld" "M1.2";
    /// NAME and UUID for a client that does not want them.
    NameUnasked "name-unasked" "M1.3";
    /// CHANNELS_LIST comes before it is asked for, too.
    ChannelsListEarly "channels-list-early" "M1.4";
    /// CHANNELS_LIST has a channel that cannot be linked.
    MissingChannelListed "missing-channel-listed" "M1.5";
    /// An agent that appears is told of with the message that is due to the other kind of client.
    AgentToldOtherwise "agent-told-otherwise" "M2";
    /// Clients are not told that the agent has gone.
    AgentGoneUntold "agent-gone-untold" "M2.2";
    /// INIT always says that an agent is connected.
    InitInventsAgent "init-invents-agent" "M10";
    /// INIT never says that an agent is connected.
    InitWithoutAgent "init-without-agent" "M10";
    /// The server's messages have full headers even if both sides have MINI_HEADER.
    FullHeaderAlways "full-header-always" "M3.1" gross;
    /// Serials count from 0.
    SerialsFromZero "serials-from-zero" "M3.2";
    /// An unknown message is ignored.
    UnknownMessageIgnored "unknown-message-ignored" "M4.1";
    /// A malformed message ends every client's session.
    MalformedEndsEverySession "malformed-ends-every-session" "M5.9" gross;
    /// DISCONNECTING ends its channel at once.
    DisconnectingEndsChannel "disconnecting-ends-channel" "M6";
    /// After an ACK that none is due for, its channel sends nothing more, as at spice-server 0.15.1.
    StrayAckStopsChannel "stray-ack-stops-channel" "M6";
    /// END in a session that does not migrate is answered with INIT.
    EndAnsweredInSession "end-answered-in-session" "M7";
    /// BEGIN for clients that are due BEGIN_SEAMLESS.
    BeginInsteadOfSeamless "begin-instead-of-seamless" "S1.1";
    /// BEGIN_SEAMLESS for clients that are due BEGIN.
    BeginSeamlessUnasked "begin-seamless-unasked" "S1.2";
    /// A source sends BEGIN to clients that are due neither.
    BeginUnasked "begin-unasked" "S1.3";
    /// The destination's ports are announced one too high.
    DestinationPortWrong "destination-port-wrong" "S1.4";
    /// MIGRATE_BEGIN_SEAMLESS is sent in place of MIGRATE_BEGIN where several clients are allowed.
    SeamlessAmongSeveral "seamless-among-several" "S1.5";
    /// BEGIN_SEAMLESS carries version 2.
    BeginVersionTwo "begin-version-two" "S2";
    /// No MIGRATE on the cursor channel.
    MigrateMissingOnCursor "migrate-missing-on-cursor" "S4.1";
    /// SWITCH_HOST where END is due.
    SwitchHostInsteadOfEnd "switch-host-instead-of-end" "S4.2";
    /// END where SWITCH_HOST is due.
    EndInsteadOfSwitchHost "end-instead-of-switch-host" "S4.3";
    /// No CANCEL when the VM migration is cancelled.
    CancelUntold "cancel-untold" "S5.1";
    /// CANCEL, when the VM migration is cancelled or fails, for every client that was told a destination.
    CancelToldToEveryone "cancel-told-to-everyone" "S5.2";
    /// No CANCEL when the VM migration fails.
    FailureUntold "failure-untold" "S5.3";
    /// The client is dropped behind CANCEL.
    CancelClosesSession "cancel-closes-session" "S5.4";
    /// After a cancelled migration no other is announced.
    NoBeginAfterCancel "no-begin-after-cancel" "S5.5";
    /// CONNECTED that nobody awaits is ignored.
    UnaskedConnectedIgnored "unasked-connected-ignored" "S6.1";
    /// CONNECT_ERROR that nobody awaits is answered with CANCEL.
    UnaskedErrorAnswered "unasked-error-answered" "S6.2";
    /// MIGRATE on the inputs channel does not ask for FLUSH_MARK.
    FlushFlagMissingOnInputs "flush-flag-missing-on-inputs" "S7";
    /// PING follows MIGRATE on the display channel.
    PingAfterMigrate "ping-after-migrate" "S8.1";
    /// A client that was sent MIGRATE is told of the agent as before, as by spice-server 0.15.1.
    AgentToldAfterMigrate "agent-told-after-migrate" "S8.1";
    /// The display channel's MIGRATE_DATA does not wait for FLUSH_MARK.
    DataBeforeFlush "data-before-flush" "S8.2";
    /// The data of inputs never counts a mouse motion.
    MotionsUncounted "motions-uncounted" "S8.3";
    /// A port's data holds a byte that its device has read.
    ReadByteKept "read-byte-kept" "D4.1";
    /// Of a port, more than 128 messages are never heard.
    PortChokes "port-chokes" "S8.5";
    /// A client that does not leave is never dropped.
    SourceWaitsForEver "source-waits-for-ever" "S9.1";
    /// The host is not told when the migrated client has left.
    CompletionUntold "completion-untold" "S9.2";
    /// When another client has come since, the host is not told that those that were to leave have left.
    NewcomerHoldsCompletion "newcomer-holds-completion" "S9.4";
    /// The host is told twice that the migrated client has left.
    CompletedTwice "completed-twice" "S9.5";
    /// A second announcement names the first destination.
    FirstDestinationKept "first-destination-kept" "S10.1";
    /// A client that has not answered is not told of a second destination.
    SecondBeginWithheld "second-begin-withheld" "S10.3";
    /// A second destination is announced without CANCEL for the first.
    SecondBeginWithoutCancel "second-begin-without-cancel" "S10.1";
    /// The message that completes the migration on the main channel is sent twice.
    CompletionSentTwice "completion-sent-twice" "Q1";
    /// INIT after the client's END, or the seamless ACK, is sent twice.
    AnswerSentTwice "answer-sent-twice" "Q2";
    /// The inputs channel's data has another magic.
    MagicOfDataWrong "magic-of-data-wrong" "D1";
    /// The inputs channel's data has version 99.
    VersionOfDataWrong "version-of-data-wrong" "D2";
    /// The inputs channel's data lacks its last byte.
    DataTruncated "data-truncated" "D3";
    /// Main's data says that an agent is connected, and there is none.
    AgentInvented "agent-invented" "D5";
    /// The port channel's data has another magic.
    MagicOfPortWrong "magic-of-port-wrong" "D4";
    /// Main's data never says that an agent is connected.
    AgentLost "agent-lost" "D7";
    /// A seamless migration with an agent that the client has not started kills the source, as it kills spice-server 0.15.1.
    DiesOfUnstartedAgent "dies-of-unstarted-agent" "D7" gross;
    /// INIT is sent as soon as a migrating client links its first child channel.
    InitBeforeEnd "init-before-end" "T2.1";
    /// INIT for a migrated client names a new session.
    InitWithNewSessionId "init-with-new-session-id" "T2.2";
    /// NAME follows INIT for a migrated client.
    NameAfterSemiSeamless "name-after-semi-seamless" "T2.3";
    /// The channels linked before the client's END never start.
    HeldChannelsForgotten "held-channels-forgotten" "T2.4";
    /// A channel linked after the INIT of a migrated client is refused.
    LateChannelsRefused "late-channels-refused" "T2.6";
    /// DO_SEAMLESS with a supported version is answered with NACK.
    SupportedVersionRefused "supported-version-refused" "T3.1";
    /// DO_SEAMLESS with any version is answered with ACK.
    AnyVersionAcked "any-version-acked" "T3.2";
    /// A second DO_SEAMLESS is answered with ACK.
    SecondDoSeamlessAcked "second-do-seamless-acked" "T3.3";
    /// After a second DO_SEAMLESS the migration is never complete.
    SecondRequestHoldsCompletion "second-request-holds-completion" "T3.10";
    /// INIT after the main channel's data.
    InitAfterSeamless "init-after-seamless" "T3.4";
    /// No MULTI_MEDIA_TIME after the main channel's data.
    MultiMediaTimeMissing "multi-media-time-missing" "T3.5";
    /// MULTI_MEDIA_TIME comes before the answer to DO_SEAMLESS.
    MessageBeforeAnswer "message-before-answer" "T3.7";
    /// MIGRATE_DST_DO_SEAMLESS is agreed to where several clients are allowed.
    AckAmongSeveral "ack-among-several" "T3.6";
    /// The channels linked before the ACK are closed with it.
    EarlyChannelsClosed "early-channels-closed" "T3.8";
    /// Channels that were linked before MIGRATE_DST_DO_SEAMLESS are not read any more.
    EarlyChannelsForgotten "early-channels-forgotten" "T3.8";
    /// END from a client that was sent NACK is ignored.
    EndIgnoredAfterNack "end-ignored-after-nack" "T3.9";
    /// Data on inputs ends that channel when it comes before that of main and display.
    DataNeedsOrder "data-needs-order" "T4.2";
    /// A seamless migration is complete with main's data.
    MainDataCompletes "main-data-completes" "T4.6";
    /// The target counts mouse motions anew, whatever the data of inputs says.
    MotionsForgotten "motions-forgotten" "T4.5";
    /// ATTACH_CHANNELS is ignored after a seamless migration if the client has not linked every channel.
    UnlinkedChannelAwaited "unlinked-channel-awaited" "T4.4";
    /// With full headers display's serials start at 1 again.
    SerialsStartAnew "serials-start-anew" "T4.3";
    /// ATTACH_CHANNELS is still ignored when a seamless migration is complete.
    AttachIgnoredAfterSeamless "attach-ignored-after-seamless" "T4";
    /// ATTACH_CHANNELS is answered during migration.
    AttachAnsweredWhileMigrating "attach-answered-while-migrating" "T5";
    /// A second END is answered with another INIT.
    SecondEndAnswered "second-end-answered" "T7";
    /// An agent that the source did not have is not told of after a seamless migration.
    NewAgentUntold "new-agent-untold" "T10";
    /// After a seamless migration a client is told of an agent that is not there.
    MissingAgentTold "missing-agent-told" "T10";
    /// An agent that attaches after the data has come is taken for one that the client knows of.
    LateAgentUntold "late-agent-untold" "T10";
    /// An agent that the client knows of is told of again after a seamless migration.
    KnownAgentTold "known-agent-told" "T10";
    /// The agent's state is not kept for an agent that attaches later: it is told of as a new one.
    AgentStateDropped "agent-state-dropped" "T10";
    /// An agent that has been replaced before the data came is taken for the same.
    ReplacedAgentUntold "replaced-agent-untold" "T10.2";
    /// A connection that ends within a body, whoever ends it, kills the host.
    DiesOfHalfBodies "dies-of-half-bodies" "M2.4" gross;
    /// That an agent has gone before the data came is not told.
    LostAgentUntold "lost-agent-untold" "T10.3";
    /// END is answered with INIT whatever the client's capabilities.
    EndServedWithoutSemi "end-served-without-semi" "T7.2";
    /// MIGRATE_CANCEL is sent just before the last message of every scheme.
    CancelBesideCompletion "cancel-beside-completion" "Q1";
    /// Child channels send their migration data twice.
    DataSentTwice "data-sent-twice" "S8.1";
    /// MULTI_MEDIA_TIME comes with the ACK, and not after the data.
    MultiMediaTimeEarly "multi-media-time-early" "T3.5";
    /// The host is told that the client has left while it is still there.
    CompletedEarly "completed-early" "S9.2";
    /// After the CANCEL that answers an unasked CONNECTED, the session ends.
    SessionEndsAfterUnasked "session-ends-after-unasked" "S6.1";
    /// The agent's state within main's data has version 7.
    DeviceVersionWrong "device-version-wrong" "D2";
    /// CHANNELS_LIST is empty.
    NoChannelListed "no-channel-listed" "M1.5";
    /// A host that has taken a guest over greets no new client.
    NoInitAfterMigration "no-init-after-migration" "T11" gross;
    /// A host that has taken a guest over announces no further migration.
    NoBeginAfterTakeover "no-begin-after-takeover" "R1";
    /// A client that was still arriving when the next destination was given is never told that the guest has moved there.
    NoCompletionForArrivals "no-completion-for-arrivals" "R3";
    /// Main answers nothing any more when its client has asked for a mouse mode.
    MainFallsSilent "main-falls-silent" "S11";
    /// Nobody can link anything but main any more when a key was pressed.
    LinksRefusedAfterKey "links-refused-after-key" "S11";
    /// A FLUSH_MARK that none is due for kills the host, as it kills spice-server 0.15.1.
    DiesOfFlushMark "dies-of-flush-mark" "S11" gross;
    /// DO_SEAMLESS within a session kills the host, as it kills spice-server 0.15.1.
    DiesOfDoSeamless "dies-of-do-seamless" "S11" gross;
    /// A second DISPLAY_INIT kills the host, as it kills spice-server 0.15.1.
    DiesOfSecondDisplayInit "dies-of-second-display-init" "S11" gross;
    /// END after the ACK to seamless migration kills the host, as it kills spice-server 0.15.1.
    DiesOfEndAfterAck "dies-of-end-after-ack" "T12" gross;
    /// Any message that is refused kills a target.
    DiesOfIllegalMessagesAtTarget "dies-of-illegal-messages-at-target" "T12" gross;
    /// A client's last message kills a target when the connection ends behind it.
    DiesOfLastMessageAtTarget "dies-of-last-message-at-target" "T12" gross;
    /// Any message that is refused kills the host.
    DiesOfIllegalMessages "dies-of-illegal-messages" "S11" gross;
    /// A client's last message kills the host when the connection ends behind it.
    DiesOfLastMessage "dies-of-last-message" "S11" gross;
    /// A client's message with too short a body kills the host.
    DiesOfShortMessages "dies-of-short-messages" "M5.1" gross;
    /// A body is awaited however long its header says that it is.
    OversizedBodyAwaited "oversized-body-awaited" "M5.2";
    /// A client's message with too long a body kills the host.
    DiesOfLongMessages "dies-of-long-messages" "M5.3" gross;
    /// A connection that ends within a message kills the host.
    DiesOfHalfMessages "dies-of-half-messages" "M5.4" gross;
    /// A display channel that ends before DISPLAY_INIT kills the host, as it kills spice-server 0.15.1.
    DiesOfDisplayWithoutInit "dies-of-display-without-init" "M5.4" gross;
    /// A message whose header does not come in one segment ends its channel.
    HeaderInOneSegment "header-in-one-segment" "M5.8";
    /// A message whose body does not come in one segment ends its channel.
    BodyInOneSegment "body-in-one-segment" "M5.8";
    /// A list of sub-messages that leads outside of its message kills the host.
    DiesOfSubLists "dies-of-sub-lists" "M5.5" gross;
    /// A client's serial that does not count on from the last one kills the host.
    DiesOfSerials "dies-of-serials" "M5.6" gross;
    /// A client's message in which every bit is set kills the host.
    DiesOfValues "dies-of-values" "M5.7" gross;
    /// Migration data other than an idle source's kills the host.
    DiesOfAlteredData "dies-of-altered-data" "T6" gross;
    /// Main's migration data is used unchecked.
    BadMainDataUsed "bad-main-data-used" "T6.1";
    /// Display's migration data is used unchecked.
    BadDisplayDataUsed "bad-display-data-used" "T6.2";
    /// Bad migration data on a child channel ends its client's session.
    BadDataEndsSession "bad-data-ends-session" "T6.2" gross;
    /// The migration data of inputs is used unchecked.
    BadInputsDataUsed "bad-inputs-data-used" "T6.3";
    /// The migration data of a port or smartcard channel is used unchecked.
    BadPortDataUsed "bad-port-data-used" "T6.4";
    /// Migration data that is not due is ignored.
    UndueDataIgnored "undue-data-ignored" "T6.5";
    /// A second link of a channel ends the session.
    SecondLinkEndsSession "second-link-ends-session" "L11";
    /// A second link of a channel kills the host.
    DiesOfSecondLink "dies-of-second-link" "L11" gross;
    /// A second link of a channel ends the links of a client that is on its way here.
    SecondLinkEndsArrival "second-link-ends-arrival" "T2.5";
    /// A new client waits until the one before has gone.
    NewcomersWait "newcomers-wait" "P2" gross;
    /// A new client waits as long as the one before has not sent DISPLAY_INIT on its display, as at spice-server 0.15.1.
    NewcomersWaitForDisplay "newcomers-wait-for-display" "P2";
    /// A client that closes a channel beside main loses its session.
    ClosedChannelEndsSession "closed-channel-ends-session" "P3" gross;
    /// A channel beside main that ends takes the others beside main along.
    SiblingsTakenAlong "siblings-taken-along" "P3" gross;
    /// The other channels stay open when a client closes main.
    ChannelsOutliveMain "channels-outlive-main" "P3";
    /// A channel beside main that its client closes kills the host.
    DiesOfClosedChannel "dies-of-closed-channel" "P3" gross;
    /// The file descriptors of connections are never closed.
    GoneClientsKept "gone-clients-kept" "P1";
    /// The file descriptor of a connection that ends within the link stage is never closed.
    HalfLinkKept "half-link-kept" "P1";
    /// That of one that ends within the header of a message is never closed.
    HalfHeaderKept "half-header-kept" "P1";
    /// That of one that ends within the body of a message is never closed.
    HalfBodyKept "half-body-kept" "P1";
    /// The end of a connection is only noticed between two messages.
    EndMissedWithinMessage "end-missed-within-message" "P1";
    /// A client that closes main kills the host.
    DiesOfVanishedClient "dies-of-vanished-client" "S12" gross;
    /// The source does not say that it is done when nobody is connected as the migration ends.
    CompletionUntoldWithoutClient "completion-untold-without-client" "S9.3";
    /// The same comes only when the time of a client would be over.
    CompletionLateWithoutClient "completion-late-without-client" "S9.3";
    /// Without a client the guest does not start at the target.
    GuestWaitsForGoneClient "guest-waits-for-gone-client" "H6" gross;
    /// When a client was lost on its way here, no other is greeted.
    NoInitAfterLostArrival "no-init-after-lost-arrival" "T13" gross;
    /// A client with full headers is announced another scheme.
    SchemeByHeader "scheme-by-header" "S1.6";
    /// A host with a password announces another scheme.
    SchemeByTicket "scheme-by-ticket" "S1.6";
    /// The migration of a client with full headers is never completed.
    NoCompletionWithFullHeaders "no-completion-with-full-headers" "S1.6";
    /// Only one connection at a time can be in the link stage.
    LinksOneByOne "links-one-by-one" "L10" gross;
    /// A client that is on its way here stays when another one links main.
    ArrivalKept "arrival-kept" "L7.2";
    /// A second client on its way here kills the host.
    DiesOfSecondArrival "dies-of-second-arrival" "T13" gross;
    /// A client that links when others were told the destination kills the host.
    DiesOfNewcomer "dies-of-newcomer" "S1.7" gross;
    /// A client that links after the destination was given is told of it.
    NewcomerAnnounced "newcomer-announced" "S1.7";
    /// Whoever is there when the migration completes is sent MIGRATE, if any client ever agreed to seamless, as at spice-server 0.15.1.
    AgreementKept "agreement-kept" "S4.4";
    /// After an attempt that failed or was cancelled every client is sent MIGRATE.
    MigrateAfterFailure "migrate-after-failure" "S4.4";
    /// After an attempt that failed or was cancelled no client is told that the guest has moved.
    NoCompletionAfterFailure "no-completion-after-failure" "R2";
    /// The same for clients that came since.
    NoCompletionForNewClient "no-completion-for-new-client" "R2.2";
    /// The next destination is announced to a client that is still on its way here.
    BeginWhileArriving "begin-while-arriving" "T9";
    /// A display whose data does not come stays open.
    DisplayAwaitedForEver "display-awaited-for-ever" "T8";
}

impl fmt::Display for Defect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// No defect has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no defect is called `{0}`")]
pub struct UnknownDefect(pub String);

impl FromStr for Defect {
    type Err = UnknownDefect;

    fn from_str(name: &str) -> Result<Self, UnknownDefect> {
        Self::ALL.iter().copied().find(|defect| defect.name() == name).ok_or_else(|| UnknownDefect(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_defect_is_found_by_its_name() {
        for defect in Defect::ALL {
            assert_eq!(defect.name().parse(), Ok(*defect), "names are unique");
            assert!(defect.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
        }
        assert_eq!("none".parse::<Defect>(), Err(UnknownDefect("none".to_owned())));
    }
}
