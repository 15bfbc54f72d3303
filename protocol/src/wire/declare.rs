//! The macros with which a message, a bit set or an open set of numbers is declared once.

/// Declares a struct whose fields lie on the wire in the order of the text.
///
/// A field is `name: Type`, where the type is a scalar, or `name: Type => Kind` with a kind from `fields` or another
/// declared struct (with `'static` in place of its lifetime).
macro_rules! wire_struct {
    ($(#[$doc:meta])* pub struct $Name:ident<$life:lifetime> { $($fields:tt)* }) => {
        $crate::wire::wire_struct!(@declare [$(#[$doc])*] $Name [<$life>] { $($fields)* });
        $crate::wire::wire_struct!(@field $Name<'static>, $Name<'value>, $Name { $($fields)* });
    };
    ($(#[$doc:meta])* pub struct $Name:ident { $($fields:tt)* }) => {
        $crate::wire::wire_struct!(@declare [$(#[$doc])*] $Name [] { $($fields)* });
        $crate::wire::wire_struct!(@field $Name, $Name, $Name { $($fields)* });
    };
    (@declare [$($doc:tt)*] $Name:ident [$($life:tt)*] {
        $( $(#[$field_doc:meta])* $field:ident: $Type:ty $(=> $Kind:ty)? ),* $(,)?
    }) => {
        $($doc)*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $Name $($life)* {
            $( $(#[$field_doc])* pub $field: $Type, )*
        }
    };
    (@field $Static:ty, $Value:ty, $Name:ident {
        $( $(#[$field_doc:meta])* $field:ident: $Type:ty $(=> $Kind:ty)? ),* $(,)?
    }) => {
        impl $crate::wire::Field for $Static {
            type Value<'value> = $Value;
            const SLOT: usize = 0 $( + <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::SLOT )*;
            const LAYOUT: &'static str = stringify!($Name);
            const BY_OFFSET: bool = false $( || <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::BY_OFFSET )*;
            const LARGE: bool = false $( || <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::LARGE )*;
            const TAIL: bool = false $( || <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::TAIL )*;

            #[inline(always)]
            #[allow(unused_assignments, reason = "the last field's end is not needed")]
            fn decode<'value>(
                at: $crate::wire::At,
                slot: &[u8],
                tail: &mut $crate::wire::Tail<'value>,
            ) -> Result<$Value, $crate::wire::Located> {
                let mut slot = slot;
                let mut offset = at.offset;
                $(
                    let $field = {
                        let size = <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::SLOT;
                        // INVARIANT: the slot was cut to the sum of the sizes.
                        let (own, rest) = slot.split_at_checked(size).unwrap_or_default();
                        let at = $crate::wire::At { field: stringify!($field), offset };
                        slot = rest;
                        offset = offset.saturating_add(size);
                        <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::decode(at, own, tail)?
                    };
                )*
                Ok($Name { $($field),* })
            }

            #[inline(always)]
            fn tail_len<'value>(value: $Value) -> usize {
                let mut length = 0usize;
                $( length = length.wrapping_add(
                    <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::tail_len(value.$field)
                ); )*
                length
            }

            #[inline(always)]
            fn encode<'value>(value: $Value, slot: &mut [u8], tail: &mut $crate::wire::TailWriter<'_>) {
                let mut slot = slot;
                $(
                    let size = <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::SLOT;
                    let (own, rest) = slot.split_at_mut_checked(size).unwrap_or_default();
                    <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::encode(value.$field, own, tail);
                    slot = rest;
                )*
                let _ = slot;
            }

            fn describe(at: $crate::wire::At, show: &mut dyn FnMut($crate::wire::FieldLayout)) {
                let mut offset = at.offset;
                $(
                    let at = $crate::wire::At { field: stringify!($field), offset };
                    <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::describe(at, show);
                    offset = offset.saturating_add(<$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::SLOT);
                )*
                let _ = offset;
            }

            #[cfg(any(test, feature = "arbitrary"))]
            fn arbitrary<'value>(bytes: &mut arbitrary::Unstructured<'value>) -> arbitrary::Result<$Value> {
                $(
                    let $field = <$crate::wire::wire_struct!(@kind $Type $(, $Kind)?) as $crate::wire::Field>::arbitrary(bytes)?;
                )*
                Ok($Name { $($field),* })
            }
        }

        #[cfg(any(test, feature = "arbitrary"))]
        impl<'value> arbitrary::Arbitrary<'value> for $Value {
            fn arbitrary(bytes: &mut arbitrary::Unstructured<'value>) -> arbitrary::Result<Self> {
                <$Static as $crate::wire::Field>::arbitrary(bytes)
            }
        }
    };
    (@kind $Type:ty) => { $Type };
    (@kind $Type:ty, $Kind:ty) => { $Kind };
}

/// Declares all messages of one direction: per row the section (`Base` or `Main`), the id, the C name, the Rust name, and
/// the fields as in `wire_struct!`, if it has any.
///
/// From it come a struct per message with fields, the enum, decoding, encoding, and the table of rows.
macro_rules! messages {
    (
        $(#[$enum_doc:meta])*
        pub enum $Enum:ident;
        $( $(#[$doc:meta])* $section:ident $id:literal $c_name:literal $Name:ident $( $(<$life:lifetime>)? { $($fields:tt)* } )?; )*
    ) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $Enum<'a> {
            $(
                $(#[$doc])*
                #[doc = ""]
                #[doc = concat!("`", $c_name, "`, id ", $id, ".")]
                $Name $( ($Name $(<$life>)?) )?,
            )*
            /// A message that this crate does not know, or one of another channel type: kept as it came.
            Unknown {
                /// The id.
                id: u16,
                /// The body.
                body: $crate::wire::Data<'a>,
            },
        }

        $( $crate::wire::messages!(@struct [$(#[$doc])*] $id $c_name $Name [$( $(<$life>)? { $($fields)* } )?]); )*

        impl<'a> $Enum<'a> {
            /// All messages of this direction that the crate knows, in order of their ids.
            pub const TABLE: &'static [$crate::message::Row] = &[
                $( $crate::message::Row {
                    id: $id,
                    c_name: $c_name,
                    name: stringify!($Name),
                    section: $crate::message::Section::$section,
                    describe: $crate::wire::messages!(@describe $Name [$( $($fields)* )?]),
                }, )*
            ];

            /// Decodes the body of message `id` as it arrived on a channel of type `channel`.
            ///
            /// Ids up to 100 are the base messages of every channel. Above, only the main channel's are known: others
            /// become [`Self::Unknown`]. Borrows from `body`; allocates nothing.
            ///
            /// # Errors
            /// When the body of a known message is not one: see [`DecodeError`](crate::DecodeError).
            #[inline]
            pub fn decode(
                channel: $crate::ChannelType,
                id: u16,
                body: &'a [u8],
            ) -> Result<Self, $crate::DecodeError> {
                if id <= $crate::message::LAST_BASE_ID || channel == $crate::ChannelType::MAIN {
                    match id {
                        $( $id => $crate::wire::messages!(@decode $Name body [$( $($fields)* )?]), )*
                        _ => return Ok(Self::Unknown { id, body: $crate::wire::Data(body) }),
                    }
                    Self::decode_apart(id, body)
                } else {
                    Ok(Self::Unknown { id, body: $crate::wire::Data(body) })
                }
            }

            /// Decodes the messages that take many registers. They are apart, and this is `decode`'s only call, so that no other
            /// message pays for saving registers.
            #[inline(never)]
            fn decode_apart(id: u16, body: &'a [u8]) -> Result<Self, $crate::DecodeError> {
                match id {
                    $( $id => $crate::wire::messages!(@decode_large $Name body [$( $($fields)* )?]), )*
                    _ => {}
                }
                Self::decode_or_explain(id, body)
            }

            /// Decodes any message, and says what is wrong with one that the others refused.
            #[cold]
            #[inline(never)]
            fn decode_or_explain(id: u16, body: &'a [u8]) -> Result<Self, $crate::DecodeError> {
                match id {
                    $( $id => $crate::wire::messages!(@decode_or_explain $c_name $Name body [$( $($fields)* )?]), )*
                    _ => Ok(Self::Unknown { id, body: $crate::wire::Data(body) }),
                }
            }

            /// The id on the wire.
            #[must_use]
            pub const fn id(&self) -> u16 {
                match self {
                    $( Self::$Name { .. } => $id, )*
                    Self::Unknown { id, .. } => *id,
                }
            }

            /// The C name, such as `SPICE_MSG_MAIN_INIT`.
            #[must_use]
            pub const fn c_name(&self) -> &'static str {
                match self {
                    $( Self::$Name { .. } => $c_name, )*
                    Self::Unknown { .. } => "unknown",
                }
            }

            /// The name that texts call it by.
            #[must_use]
            pub const fn short_name(&self) -> $crate::message::ShortName {
                $crate::message::ShortName { c_name: self.c_name(), id: self.id() }
            }
        }

        impl $crate::message::sealed::Sealed for $Enum<'_> {}

        impl $Enum<'_> {
            /// Encodes the messages that end in bytes to be copied, apart for the same reason as `decode_apart`.
            #[inline(never)]
            fn encode_framed_apart<const MINI: bool>(
                &self,
                serial: u64,
                out: &mut [u8],
            ) -> $crate::wire::Encoded {
                let kind = if MINI { $crate::frame::HeaderKind::Mini } else { $crate::frame::HeaderKind::Full };
                $crate::wire::Encoded::new(match *self {
                    $( $crate::wire::messages!(@pattern $Name value [$( $($fields)* )?]) =>
                        $crate::wire::messages!(@encode_framed $id $Name value kind serial out [$( $($fields)* )?]), )*
                    Self::Unknown { id, body } => $crate::wire::encode_framed::<$crate::wire::Rest>(kind, serial, id, body, out),
                })
            }
        }

        impl $crate::message::Message for $Enum<'_> {
            fn id(&self) -> u16 {
                self.id()
            }

            #[inline]
            fn encoded_len(&self) -> usize {
                match *self {
                    $( $crate::wire::messages!(@pattern $Name value [$( $($fields)* )?]) => $crate::wire::messages!(@length $Name value [$( $($fields)* )?]), )*
                    Self::Unknown { body, .. } => body.0.len(),
                }
            }

            #[inline]
            fn encode(&self, out: &mut [u8]) -> Result<usize, $crate::EncodeError> {
                match *self {
                    $( $crate::wire::messages!(@pattern $Name value [$( $($fields)* )?]) => $crate::wire::messages!(@encode $Name value out [$( $($fields)* )?]), )*
                    Self::Unknown { body, .. } => $crate::wire::encode_body::<$crate::wire::Rest>(body, out),
                }
            }

            #[inline]
            fn encode_framed(
                &self,
                kind: $crate::frame::HeaderKind,
                serial: u64,
                out: &mut [u8],
            ) -> Result<usize, $crate::EncodeError> {
                match *self {
                    $( $crate::wire::messages!(@pattern $Name value [$( $($fields)* )?])
                        if !<$crate::wire::messages!(@kind $Name [$( $($fields)* )?]) as $crate::wire::Field>::TAIL =>
                        $crate::wire::messages!(@encode_framed $id $Name value kind serial out [$( $($fields)* )?]), )*
                    // For each kind on its own, so that a header of known length is written in few steps.
                    _ => match kind {
                        $crate::frame::HeaderKind::Mini => self.encode_framed_apart::<true>(serial, out).result(),
                        $crate::frame::HeaderKind::Full => self.encode_framed_apart::<false>(serial, out).result(),
                    }
                }
            }
        }

        #[cfg(any(test, feature = "arbitrary"))]
        impl<'a> $Enum<'a> {
            /// A message of this id, known or not, as it may be on the main channel.
            ///
            /// # Errors
            /// When `bytes` are used up.
            pub fn arbitrary_of(id: u16, bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
                Ok(match id {
                    $( $id => $crate::wire::messages!(@arbitrary $Name bytes [$( $($fields)* )?]), )*
                    id => Self::Unknown { id, body: <$crate::wire::Rest as $crate::wire::Field>::arbitrary(bytes)? },
                })
            }
        }

        #[cfg(any(test, feature = "arbitrary"))]
        impl<'a> arbitrary::Arbitrary<'a> for $Enum<'a> {
            /// Of all known messages, each as likely, and now and then an unknown one.
            fn arbitrary(bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
                let row = bytes.int_in_range(0..=Self::TABLE.len())?;
                let id = Self::TABLE.get(row).map_or(1000, |row| row.id);
                Self::arbitrary_of(id, bytes)
            }
        }

        #[cfg(test)]
        impl $crate::message::every_row::Direction for $Enum<'static> {
            type Message<'a> = $Enum<'a>;
            const TABLE: &'static [$crate::message::Row] = $Enum::TABLE;
            fn arbitrary_of<'a>(id: u16, bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<$Enum<'a>> {
                $Enum::arbitrary_of(id, bytes)
            }
            fn decode(id: u16, body: &[u8]) -> Result<$Enum<'_>, $crate::DecodeError> {
                $Enum::decode($crate::ChannelType::MAIN, id, body)
            }
        }

        #[cfg(test)]
        #[allow(non_snake_case, reason = "a test per row, with the row's name")]
        mod every_rule_holds_for {
            $(
                #[test]
                fn $Name() {
                    $crate::message::every_row::check::<super::$Enum<'static>>($id);
                }
            )*
        }
    };
    (@struct [$($doc:tt)*] $id:literal $c_name:literal $Name:ident []) => {};
    (@struct [$($doc:tt)*] $id:literal $c_name:literal $Name:ident [$($declaration:tt)+]) => {
        $crate::wire::wire_struct! {
            $($doc)*
            #[doc = ""]
            #[doc = concat!("`", $c_name, "`, id ", $id, ".")]
            pub struct $Name $($declaration)+
        }
    };
    (@describe $Name:ident []) => { |_| () };
    (@describe $Name:ident [$($fields:tt)+]) => {
        |show| <$Name as $crate::wire::Field>::describe($crate::wire::START, show)
    };
    (@arbitrary $Name:ident $bytes:ident []) => { Self::$Name };
    (@arbitrary $Name:ident $bytes:ident [$($fields:tt)+]) => {
        Self::$Name(<$Name as $crate::wire::Field>::arbitrary($bytes)?)
    };
    (@decode $Name:ident $body:ident []) => {
        if $body.is_empty() {
            return Ok(Self::$Name);
        }
    };
    (@decode $Name:ident $body:ident [$($fields:tt)+]) => {{
        const SLOT: usize = <$Name as $crate::wire::Field>::SLOT;
        if !<$Name as $crate::wire::Field>::LARGE
            && let Some(value) = $crate::wire::decode_valid::<$Name, SLOT>($body)
        {
            return Ok(Self::$Name(value));
        }
    }};
    (@decode_large $Name:ident $body:ident []) => { {} };
    (@decode_large $Name:ident $body:ident [$($fields:tt)+]) => {{
        const SLOT: usize = <$Name as $crate::wire::Field>::SLOT;
        if <$Name as $crate::wire::Field>::LARGE
            && let Some(value) = $crate::wire::decode_valid::<$Name, SLOT>($body)
        {
            return Ok(Self::$Name(value));
        }
    }};
    (@decode_or_explain $c_name:literal $Name:ident $body:ident []) => {
        match $crate::wire::decode_empty($c_name, $body) {
            Ok(()) => Ok(Self::$Name),
            Err(error) => Err(error),
        }
    };
    (@decode_or_explain $c_name:literal $Name:ident $body:ident [$($fields:tt)+]) => {{
        const SLOT: usize = <$Name as $crate::wire::Field>::SLOT;
        match $crate::wire::decode_body::<$Name, SLOT>($c_name, $body) {
            Ok(value) => Ok(Self::$Name(value)),
            Err(error) => Err(error),
        }
    }};
    (@pattern $Name:ident $value:ident []) => { Self::$Name };
    (@pattern $Name:ident $value:ident [$($fields:tt)+]) => { Self::$Name($value) };
    (@kind $Name:ident []) => { $crate::wire::Empty };
    (@kind $Name:ident [$($fields:tt)+]) => { $Name };
    (@encode_framed $id:literal $Name:ident $value:ident $kind:ident $serial:ident $out:ident []) => {
        $crate::wire::encode_framed::<$crate::wire::Empty>($kind, $serial, $id, (), $out)
    };
    (@encode_framed $id:literal $Name:ident $value:ident $kind:ident $serial:ident $out:ident [$($fields:tt)+]) => {
        $crate::wire::encode_framed::<$Name>($kind, $serial, $id, $value, $out)
    };
    (@length $Name:ident $value:ident []) => { 0 };
    (@length $Name:ident $value:ident [$($fields:tt)+]) => {
        $crate::wire::body_len::<$Name>($value)
    };
    (@encode $Name:ident $value:ident $out:ident []) => { Ok(0) };
    (@encode $Name:ident $value:ident $out:ident [$($fields:tt)+]) => { $crate::wire::encode_body::<$Name>($value, $out) };
}

/// Declares a number whose known values have names; unknown ones are kept.
macro_rules! open_enum {
    (
        $(#[$doc:meta])*
        pub struct $Name:ident($number:ty);
        $( $(#[$value_doc:meta])* $VALUE:ident = $value:literal $text:literal; )*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $Name(pub $number);

        impl $Name {
            $( $(#[$value_doc])* pub const $VALUE: Self = Self($value); )*

            /// The known values in order.
            pub const KNOWN: &'static [Self] = &[$( Self::$VALUE ),*];

            /// The name of a known value.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $( $value => Some($text), )*
                    _ => None,
                }
            }

            /// The known value of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::KNOWN.iter().copied().find(|known| known.name() == Some(name))
            }
        }

        impl core::fmt::Display for $Name {
            fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => formatter.write_str(name),
                    None => write!(formatter, "unknown ({})", self.0),
                }
            }
        }

        impl core::fmt::Debug for $Name {
            fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(self, formatter)
            }
        }

        $crate::wire::newtype_field!($Name($number));
    };
}

/// Lets a newtype around a number lie on the wire as that number.
macro_rules! newtype_field {
    ($Name:ident($number:ty)) => {
        impl $crate::wire::Field for $Name {
            type Value<'value> = Self;
            const SLOT: usize = size_of::<$number>();
            const LAYOUT: &'static str = stringify!($number);
            const TAIL: bool = false;
            #[inline(always)]
            fn decode<'value>(
                at: $crate::wire::At,
                slot: &[u8],
                tail: &mut $crate::wire::Tail<'value>,
            ) -> Result<Self, $crate::wire::Located> {
                <$number as $crate::wire::Field>::decode(at, slot, tail).map(Self)
            }
            #[inline(always)]
            fn tail_len(_: Self) -> usize {
                0
            }
            #[inline(always)]
            fn encode(value: Self, slot: &mut [u8], tail: &mut $crate::wire::TailWriter<'_>) {
                <$number as $crate::wire::Field>::encode(value.0, slot, tail);
            }
            #[cfg(any(test, feature = "arbitrary"))]
            fn arbitrary<'value>(bytes: &mut arbitrary::Unstructured<'value>) -> arbitrary::Result<Self> {
                <$number as $crate::wire::Field>::arbitrary(bytes).map(Self)
            }
        }

        #[cfg(any(test, feature = "arbitrary"))]
        impl<'value> arbitrary::Arbitrary<'value> for $Name {
            fn arbitrary(bytes: &mut arbitrary::Unstructured<'value>) -> arbitrary::Result<Self> {
                <Self as $crate::wire::Field>::arbitrary(bytes)
            }
        }
    };
}

/// Declares a set of bits; unknown ones are kept.
macro_rules! flags {
    (
        $(#[$doc:meta])*
        pub struct $Name:ident($number:ty);
        $( $(#[$flag_doc:meta])* $FLAG:ident = $bit:literal; )*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $Name(pub $number);

        impl $Name {
            $( $(#[$flag_doc])* pub const $FLAG: Self = Self($bit); )*

            /// Whether all bits of `other` are set.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

        }

        /// The bits of either.
        impl core::ops::BitOr for $Name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl core::fmt::Debug for $Name {
            fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let mut unnamed = self.0;
                let mut separator = "";
                $(
                    if self.contains(Self::$FLAG) {
                        write!(formatter, "{separator}{}", stringify!($FLAG))?;
                        separator = "|";
                        unnamed &= !$bit;
                    }
                )*
                if unnamed != 0 || separator.is_empty() { write!(formatter, "{separator}{unnamed:#x}") } else { Ok(()) }
            }
        }

        $crate::wire::newtype_field!($Name($number));
    };
}

pub(crate) use {flags, messages, newtype_field, open_enum, wire_struct};
