"""What an exported model brings with it, to be used without Headway."""
